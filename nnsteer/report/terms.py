"""What the words on a page mean; each is explained where a section first uses it."""

TERMS = {
    "fit, tune and test split": "directions are fitted on the first, everything is chosen on the "
    "second, and the third, which neither has seen, is what is reported",
    "score": "the cosine of an activation with the condition's direction; the condition fires "
    "beyond its threshold",
    "F1": "the harmonic mean of precision (the share of alarms that are right) and recall (the "
    "share of cases found); at most 1",
    "broken": "an answer that is empty, runs in circles, or is absurd to the unsteered model; "
    "neither refused nor answered",
    "standardisation": "1 where steering strength alpha means the same for every prompt: nothing "
    "is refused at alpha 0 and everything at alpha 1; it is agreement times ends: 1 minus the area "
    "between the harmful and the harmless curve, times the mean share of what is answered at 0 and "
    "refused at 1. Curves that ignore alpha have at most 1/2",
    "random direction": "a direction of the same length that means nothing; what it changes is no "
    "effect",
    "p": "the chance of at least such a difference where there is none: McNemar's exact test for "
    "rates, a sign-flip test for means; * p < 0.05 after Holm's correction for all that are "
    "compared",
    "interval": "95 %: Wilson's for a rate, a bootstrap over prompts otherwise",
    "matching score": "the share of items answered as the behaviour would have it",
    "mode collapse (MC)": "more than 95 % of the answers are one letter",
    "cosine": "1 for the same direction, 0 for unrelated ones, -1 for opposite ones",
    "T@x": "the share of the rest's accuracy that is retained where the skill's has fallen to x, "
    "interpolated",
    "gap": "the most by which the share retained exceeds the skill's; a maximum, so that noise "
    "lifts it",
    "top-1, top-10": "how often the next token is the model's first guess, or among its first ten",
}
