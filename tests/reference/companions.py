"""The companions once more, in float64 loops and NumPy, from their papers; imports nothing of Setpoint.

Logits of one row in, but for DIST, which takes a matrix. ``0·log 0`` is 0. A class at ``-inf`` has probability 0.
"""

import itertools
import math

import numpy as np

INF = math.inf


def log_softmax(logits, temperature=1.0):
    scaled = [v / temperature for v in logits]
    top = max(scaled)
    total = math.log(math.fsum(math.exp(v - top) for v in scaled))
    return [v - top - total for v in scaled]


def kl(log_p, log_q):
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True) if a > -INF)


def cross_entropy(log_p, log_q):
    return -math.fsum(math.exp(a) * b for a, b in zip(log_p, log_q, strict=True) if a > -INF)


def log_sum(log_probs):
    top = max(log_probs, default=-INF)
    return top + math.log(math.fsum(math.exp(v - top) for v in log_probs)) if top > -INF else -INF


def target_of(teacher, label):
    """The label, or the teacher's top class."""
    return teacher.index(max(teacher)) if label < 0 else label


def others(logits, y, temperature):
    """Log-probabilities of a softmax over the other classes alone; none where no other class is live."""
    rest = [v for k, v in enumerate(logits) if k != y]
    return log_softmax(rest, temperature) if max(rest, default=-INF) > -INF else [-INF] * len(rest)


def binary(logits, y, temperature):
    """Log (p_y, 1 − p_y)."""
    log_probs = log_softmax(logits, temperature)
    return [log_probs[y], log_sum([v for k, v in enumerate(log_probs) if k != y])]


def dkd(student, teacher, label, temperature, target=1.0, other=8.0):
    """Zhao et al. 2022, eq. 7: α·TCKD + β·NCKD."""
    y = target_of(teacher, label)
    tckd = kl(binary(teacher, y, temperature), binary(student, y, temperature))
    return target * tckd + other * kl(others(teacher, y, temperature), others(student, y, temperature))


def nkd(student, teacher, label, temperature, other=1.5):
    """Yang et al. 2023: γ·cross-entropy over the non-targets at T; and −p_y log q_y at T = 1."""
    y = target_of(teacher, label)
    p_y, log_q_y = math.exp(log_softmax(teacher)[y]), log_softmax(student)[y]
    tempered = other * cross_entropy(others(teacher, y, temperature), others(student, y, temperature))
    return tempered, (-p_y * log_q_y if p_y > 0 else 0.0)


def dist(student, teacher, temperature, within=1.0, between=1.0):
    """Huang et al. 2022: the loss of the whole batch, of means of 1 − Pearson."""
    q, p = (np.exp([log_softmax(row, temperature) for row in logits]) for logits in (student, teacher))
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)]
    return float(within * np.mean(rows) + between * np.mean(columns))


def head_of(teacher, temperature, head=0.5):
    """The teacher's top classes to a cumulative probability ``head``, always the first; the margin of that choice."""
    p = [math.exp(v) for v in log_softmax(teacher, temperature)]
    order = sorted(range(len(p)), key=lambda k: -p[k])
    chosen, total, margin = [order[0]], p[order[0]], INF
    for before, k in itertools.pairwise(order):
        total += p[k]
        margin = min(margin, abs(total - head))
        if total > head:
            margin = min(margin, p[before] - p[k])
            break
        chosen.append(k)
    return chosen, margin


def adaptive_share(student, teacher, temperature, head=0.5):
    """The forward KL's weight g_head / (g_head + g_tail)."""
    p, q = ([math.exp(v) for v in log_softmax(x, temperature)] for x in (teacher, student))
    gaps = [abs(a - b) for a, b in zip(p, q, strict=True)]
    chosen, _ = head_of(teacher, temperature, head)
    whole = math.fsum(gaps)
    return math.fsum(gaps[k] for k in chosen) / whole if whole > 0 else 0.5


def adaptive_kl(student, teacher, temperature, head=0.5):
    """Wu et al. 2024."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    share = adaptive_share(student, teacher, temperature, head)
    return share * kl(log_p, log_q) + (1 - share) * kl(log_q, log_p)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(max(x, -700)) / (1 + math.exp(x))


def todi(student, teacher, temperature):
    """Jung et al. 2025: σ(log p/q)·p log(p/q) + σ(log q/p)·q log(q/p), summed over classes."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    total = 0.0
    for a, b in zip(log_p, log_q, strict=True):
        if a > -INF:
            total += sigmoid(a - b) * math.exp(a) * (a - b)
        if b > -INF:
            total += sigmoid(b - a) * math.exp(b) * (b - a)
    return total


def squared_error(student, teacher, t_student, t_teacher):
    """Jafari et al. 2021, with ``F.mse_loss``'s mean over classes."""
    return float(np.mean((np.asarray(student) / t_student - np.asarray(teacher) / t_teacher) ** 2))


def through_softmax(student, temperature, slopes):
    """The gradient on the logits, from that on the log-probabilities."""
    q = [math.exp(v) for v in log_softmax(student, temperature)]
    total = math.fsum(slopes)
    return [(g - a * total) / temperature for g, a in zip(slopes, q, strict=True)]


def todi_gradient(student, teacher, temperature):
    """With the two weights held constant."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    slopes = [
        -sigmoid(a - b) * math.exp(a) + sigmoid(b - a) * math.exp(b) * (1 + b - a)
        for a, b in zip(log_p, log_q, strict=True)
    ]
    return through_softmax(student, temperature, slopes)


def adaptive_gradient(student, teacher, temperature, head=0.5):
    """With the share held constant; the gradients of the two KL of section 1.1 of the specification."""
    log_q, log_p = log_softmax(student, temperature), log_softmax(teacher, temperature)
    share, back = adaptive_share(student, teacher, temperature, head), kl(log_q, log_p)
    return [
        (share * (math.exp(b) - math.exp(a)) + (1 - share) * math.exp(b) * (b - a - back)) / temperature
        for a, b in zip(log_p, log_q, strict=True)
    ]
