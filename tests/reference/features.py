"""What is compared inside two models once more, in float64 and plain loops; imports nothing of Setpoint."""

import math

from reference.distillation import kl, softmax


def norm(vector):
    return math.sqrt(math.fsum(x * x for x in vector))


def mse(s, t):
    return math.fsum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)


def cosine(s, t):
    return 1 - math.fsum(a * b for a, b in zip(s, t, strict=True)) / (norm(s) * norm(t))


def pkd(s, t):
    return math.fsum((a / norm(s) - b / norm(t)) ** 2 for a, b in zip(s, t, strict=True))


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def over_heads(attention):
    """The mean of ``[heads][L][L]``."""
    size = len(attention[0])
    return [[[mean(head[i][j] for head in attention) for j in range(size)] for i in range(size)]]


def attention(student, teacher, query, distance):
    """The distance of the rows of one query, mean over heads; one example without padding, ``[heads][L][L]``."""
    if len(student) != len(teacher):
        student, teacher = over_heads(student), over_heads(teacher)
    return mean(distance(s[query], t[query]) for s, t in zip(student, teacher, strict=True))


def attention_kl(student, teacher, query):
    return attention(student, teacher, query, lambda s, t: kl(t, s))


def attention_mse(student, teacher, query):
    return attention(student, teacher, query, mse)


def relation(states, head, heads, query):
    """The distribution of one position over all, by one head's part of the states ``[L][D]``."""
    d = len(states[0]) // heads
    parts = [row[head * d : (head + 1) * d] for row in states]
    return softmax([math.fsum(a * b for a, b in zip(parts[query], other, strict=True)) / math.sqrt(d)
                    for other in parts])  # fmt: skip


def relation_kl(student, teacher, heads, query):
    return mean(kl(relation(teacher, h, heads, query), relation(student, h, heads, query)) for h in range(heads))


def energy(maps):
    """Σ over channels of the squares of ``[C][H][W]``, in one row."""
    rows, columns = len(maps[0]), len(maps[0][0])
    return [math.fsum(channel[i][j] ** 2 for channel in maps) for i in range(rows) for j in range(columns)]
