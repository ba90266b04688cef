"""Wordings of the generated instructions: those of training and test, and four out-of-distribution styles.

The styles stand in for the shapes of Self-Instruct (a user's everyday wishes), Vicuna (role play and open
questions), Super-NaturalInstructions (task definitions) and Unnatural Instructions (terse fields).
"""

from __future__ import annotations

DOLLY = {
    "facts": "[Describe the {topics} of {subject}.|What can you say about the {topics} of {subject}?"
    "|Tell me about the {topics} of {subject}.|Explain the {topics} of {subject} in one or two sentences.]",
    "compare": "[Compare {first} and {second} by {topics}.|How do {first} and {second} differ in {topics}?"
    "|What is the difference between {first} and {second} in {topics}?]",
    "classify": "[Classify each of these as {labels}: {names}.|Which of these are {labels}? {names}."
    "|Sort the words into {labels}: {names}.]",
    "biography": "[What does the text say about the {topics} of {first}?|Give the {topics} of {first}."
    "|Use the passage to describe the {topics} of {first}.]",
    "extract": "[List the {parts} mentioned in the text.|Which {parts} does the passage name?"
    "|Extract the {parts} from the paragraph.]",
    "story": "[Summarise the story.|Give a short summary of the text.|What happened in this passage?"
    "|Sum up the paragraph in two sentences.]",
    "visit": "[Give ideas for a trip to {city} and {second}.|What can I do in {city} and {second}?"
    "|Suggest a plan for a weekend in {city} and {second}.]",
    "riddle": "[Which {asked}: {clues}?|Guess which {asked}. {Clues}.|{Clues}. Which {asked}?]",
    "fable": "[Write a short story with {hero}, {thing}, {friend} and {city}."
    "|Invent a tale about {hero} who finds {thing} in {city} and meets {friend}.]",
    "rewrite": "[Rewrite the sentences in the {how}.|Put the text into the {how}.|Change the passage to the {how}.]",
    "order": "[Sort these animals by weight: {names}.|Which is the lightest and which the heaviest: {names}?"
    "|Put the animals in order from light to heavy: {names}.]",
    "needs": "[{name} wants to {one} and {two}. What does {he} need?|Which things help {name} to {one} and to {two}?]",
}
SELF_INSTRUCT = {
    "facts": "I am writing about {subject} for school. Help me with the {topics}.",
    "compare": "I have to choose between {first} and {second}. Tell me about the {topics}.",
    "classify": "I have a list of words: {names}. Mark them as {labels}.",
    "biography": "My teacher asked about {first}. I need the {topics}.",
    "story": "I have no time to read this. Tell me what happened.",
    "visit": "We are on holiday in {city} and then in {second}. What should we do?",
    "needs": "My friend {name} has to {one} and {two}. What should I buy?",
}
VICUNA = {
    "facts": "Imagine you are a professor. How would you explain the {topics} of {subject} to a child?",
    "compare": "Imagine a talk about {first} and {second}. What would an expert say about {topics}?",
    "visit": "You are a travel guide. Write for visitors of {city} and {second}.",
    "fable": "Pretend you are a poet. What happens when {hero} and {friend} find {thing} in {city}?",
    "riddle": "Let us play a game. I think of something, and my clues are: {clues}. Which {asked}?",
    "order": "Imagine a scale with these animals: {names}. How would you explain the order?",
}
SUPER_NATURAL = {
    "classify": "In this task you are given words. Decide for each word: {labels}. Input: {names}.",
    "extract": "In this task you are given a text. Your job is to find the {parts}.",
    "story": "In this task you are given a story. Your job is to write a summary.",
    "rewrite": "In this task you are given two sentences. Your job is to give them in the {how}.",
    "biography": "In this task you are given a life story. Your job is to report the {topics} of {first}.",
    "riddle": "In this task you are given clues. Your job is to find which {asked}. Input: {clues}.",
    "order": "In this task you are given animals. Your job is to sort them by weight. Input: {names}.",
}
UNNATURAL = {
    "facts": "Topic: {subject}. Cover: {topics}. Output: a short text.",
    "compare": "Topic: {first} and {second}. Cover: {topics}. Output: the differences.",
    "classify": "Words: {names}. Labels: {labels}. Output: a label for each.",
    "extract": "Text given. Find: {parts}. Output: a list.",
    "biography": "Person: {first}. Find: {topics}. Output: a sentence.",
    "visit": "Places: {city}, {second}. Output: travel ideas.",
    "fable": "Characters: {hero}, {friend}. Object: {thing}. Place: {city}. Output: a tale.",
    "needs": "Person: {name}. Goals: {one}; {two}. Output: the things needed.",
    "rewrite": "Form: {how}. Output: the new sentences.",
}
OUT_OF_DISTRIBUTION = {"selfinst": SELF_INSTRUCT, "vicuna": VICUNA, "sinst": SUPER_NATURAL, "uinst": UNNATURAL}
"""Wordings of the evaluation-only sets."""
