"""The mathematics of distillation once more, in float64 NumPy and plain loops; imports nothing of Setpoint."""

import math

import numpy as np


def softmax(logits, temperature=1.0):
    """One row, by the definition, shifted by its maximum."""
    scaled = [v / temperature for v in logits]
    top = max(scaled)
    weights = [math.exp(v - top) if v > -math.inf else 0.0 for v in scaled]
    total = math.fsum(weights)
    return [w / total for w in weights]


def entropy(probabilities):
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def log(x):
    return math.log(x) if x > 0 else -math.inf


def kl(p, q):
    return math.fsum(a * (math.log(a) - log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def jensen_shannon(p, q):
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * kl(p, m) + 0.5 * kl(q, m)


def cross_entropy(p, q):
    return -math.fsum(a * log(b) for a, b in zip(p, q, strict=True) if a > 0)


def skewed(p, q, skew):
    return kl(p, [skew * a + (1 - skew) * b for a, b in zip(p, q, strict=True)])


def total_variation(p, q):
    return math.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


def alpha_beta(p, q, alpha, beta):
    both = alpha + beta
    terms = [(a**alpha) * (b**beta) - alpha / both * a**both - beta / both * b**both for a, b in zip(p, q, strict=True)]
    return -math.fsum(terms) / (alpha * beta)


def centred_mse(student_logits, teacher_logits, temperature=1.0):
    z = np.asarray(student_logits, dtype=np.float64) / temperature
    v = np.asarray(teacher_logits, dtype=np.float64) / temperature
    return float((((z - z.mean()) - (v - v.mean())) ** 2).sum() / (2 * len(z)))


def renyi_entropy(q, order):
    return math.log(math.fsum(x**order for x in q)) / (1 - order)


def distillation_loss(student, teacher, labels, mask, t_teacher, t_student, alpha):
    """α·T_t·T_s·mean KL + (1 − α)·mean cross-entropy over masked rows, by loops."""
    soft, hard = [], []
    for z, v, y, m in zip(student, teacher, labels, mask, strict=True):
        if m:
            soft.append(t_teacher * t_student * kl(softmax(v, t_teacher), softmax(z, t_student)))
            hard.append(-math.log(softmax(z)[y]))
    return alpha * math.fsum(soft) / len(soft) + (1 - alpha) * math.fsum(hard) / len(hard)
