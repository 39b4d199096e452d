"""The share of counts that are at most one off."""


def score(predictions, references):
    """See `metrics`. Both are dicts by id, of numbers as text."""
    each = {id: float(abs(int(predictions[id]) - int(truth)) <= 1) for id, truth in references.items()}
    return sum(each.values()) / len(each), each
