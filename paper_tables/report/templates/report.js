// Sorting by a click on a column's heading, filtering the list of runs, and printing what is closed.
const value = cell => {
  const text = cell.textContent.trim().replaceAll("−", "-");
  const number = parseFloat(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};
const before = (a, b) => {
  if (a === null || b === null) return (a === null) - (b === null) || 0; // empty cells last, whichever way round
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
};
document.querySelectorAll("table.sortable").forEach(table => {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, index) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    const rows = [...table.tBodies[0].rows].map(row => [value(row.cells[index]), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? before(a, b) : sign * before(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
});
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  document.querySelectorAll("tr[data-words], details.run").forEach(item => {
    const text = item.dataset.words;
    item.hidden = !words.every(word => text.includes(word));
  });
});
const show = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", show);
show();
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open]):not(.run):not(.run *)")];
  opened.forEach(details => { details.open = true; });
});
addEventListener("afterprint", () => {
  opened.forEach(details => { details.open = false; });
  opened = [];
});
