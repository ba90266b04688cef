"""A language model as judge of recorded runs: the room behind `bench judge`.

The way of a question: `items` pairs each response with what it is judged against; `protocol` words the question and
reads the verdict; `queue` knows from the answers on disk (`answers`) what is still to be asked; `runner` asks it in
parallel and `batches` through the batch API, both with `client` and within a `budget`; `scores` turns verdicts into
scores, which `session` writes beside the run as a typed file (`results`).
"""
