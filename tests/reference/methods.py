"""The temperature methods once more, as their papers write them, in plain Python floats; imports nothing of Setpoint.

A loss takes the teacher's rows v, the student's z, and ``held``: the student's rows again, for all that the paper takes
no gradient through. The difference quotient in z alone is then the gradient that the paper means.
"""

import math

from reference.distillation import cross_entropy, entropy, kl, softmax


def mean(values):
    return math.fsum(values) / len(values)


def std(row, ddof=1):
    middle = mean(row)
    return math.sqrt(math.fsum((x - middle) ** 2 for x in row) / (len(row) - ddof))


def centred(row):
    middle = mean(row)
    return [x - middle for x in row]


def kd(teacher, student, t_teacher, t_student, scale, distance=kl):
    return scale * distance(softmax(teacher, t_teacher), softmax(student, t_student))


def matched(v, z, temperatures):
    return mean([kd(a, b, t, t, t * t) for a, b, t in zip(v, z, temperatures, strict=True)])


def label_loss(row, label):
    return -math.log(softmax(row)[label])


def hard_loss(z, labels):
    return mean([label_loss(row, y) for row, y in zip(z, labels, strict=True)])


def gradient(function, z, step=1e-5):
    """Central differences of function(z), row by row and class by class."""
    result = []
    for n, row in enumerate(z):
        slopes = []
        for k in range(len(row)):
            ends = []
            for sign in (1, -1):
                moved = [list(other) for other in z]
                moved[n][k] += sign * step
                ends.append(function(moved))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        result.append(slopes)
    return result


# ----------------------------------------------------------------------------------------- losses by their papers


def progressive(v, z, held, labels, progress):
    """POCL: 1 → 1.33 → 1.67 → 2 over four stages."""
    t = (1.0, 4 / 3, 5 / 3, 2.0)[min(int(4 * progress), 3)]
    return matched(v, z, [t] * len(v))


def multi(v, z, held, labels, progress):
    """MLKD: the sum over the temperatures."""
    return math.fsum(matched(v, z, [t] * len(v)) for t in (4.0, 3.0, 5.0, 2.0, 6.0))


def lskd(v, z, held, labels, progress, tau=2.0):
    """On Z-scores, with the Bessel std of the code; nothing detached."""

    def score(row):
        return [x / std(row) for x in centred(row)]

    return tau**2 * mean([kl(softmax(score(a), tau), softmax(score(b), tau)) for a, b in zip(v, z, strict=True)])


def normkd(v, z, held, labels, progress, norm=2.0):
    rows = []
    for a, b in zip(v, z, strict=True):
        t_teacher, t_student = norm * std(a), norm * std(b)
        rows.append(kd(a, b, t_teacher, t_student, t_teacher**2))
    return mean(rows)


def sphere(row, level):
    """A layer norm without affine part, times m."""
    return [level * x / std(row, 0) for x in centred(row)]


def spherical(v, z, held, labels, progress, t=4.0):
    level = mean([std(a, 0) for a in v])
    return mean([kd(sphere(a, level), sphere(b, level), t, t, t * t) for a, b in zip(v, z, strict=True)])


def spherical_hard(v, z, labels):
    """The cross-entropy, which reads the sphere too."""
    level = mean([std(a, 0) for a in v])
    return hard_loss([sphere(row, level) for row in z], labels)


def dtkd_temperatures(teacher, student, tau=4.0):
    x, y = max(teacher), max(student)
    return 2 * x / (x + y) * tau, 2 * y / (x + y) * tau


def dtkd(v, z, held, labels, progress, tau=4.0):
    """3·mean(T_t T_s KL) + 1·τ²KL(τ, τ), of 4 in all; of centred logits; warm-up of 20 in 240 epochs."""
    rows = []
    for a, b in zip(v, z, strict=True):
        t_teacher, t_student = dtkd_temperatures(centred(a), centred(b), tau)
        rows.append(0.75 * kd(a, b, t_teacher, t_student, t_teacher * t_student) + 0.25 * kd(a, b, tau, tau, tau**2))
    return min(progress * 240 / 20, 1.0) * mean(rows)


def ttm(v, z, held, labels, progress, t=4.0):
    return t * mean([kl(softmax(a, t), softmax(b)) for a, b in zip(v, z, strict=True)])


def power_sum(row, gamma):
    """U = Σ softmax(v)^γ, as the paper writes it."""
    return math.fsum(p**gamma for p in softmax(row))


def wttm(v, z, held, labels, progress, t=4.0):
    return mean([power_sum(a, 1 / t) * kl(softmax(a, t), softmax(b)) for a, b in zip(v, z, strict=True)])


def ats_target(row, label, target=4.0, other=2.0):
    """Softmax(v ⊘ τ) of logits as they are."""
    return softmax([x / (target if k == label else other) for k, x in enumerate(row)])


def ats(v, z, held, labels, progress):
    rows = zip(v, z, labels, strict=True)
    return mean([cross_entropy(ats_target(centred(a), y), softmax(b)) for a, b, y in rows])


def cosine(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def by_difficulty(weights, base=4.0, strength=1.0, lowest=-math.inf):
    """T_n = T₀ + β(w̄ − w_n): without a lowest temperature it has no lower bound."""
    return [max(base + strength * (mean(weights) - w), lowest) for w in weights]


def flsw_weights(v, z, gamma=2.0):
    return [(1 - cosine(a, b)) ** gamma for a, b in zip(v, z, strict=True)]


def cwsm_weights(z):
    return [1 / (max(softmax(row)) + 1e-3) for row in z]


def flsw(v, z, held, labels, progress):
    centre = [centred(a) for a in v], [centred(a) for a in held]
    return matched(v, z, by_difficulty(flsw_weights(*centre), lowest=1.0))


def cwsm(v, z, held, labels, progress):
    return matched(v, z, by_difficulty(cwsm_weights(held), lowest=1.0))


def wsld(v, z, held, labels, progress, t=4.0):
    rows = []
    for a, b, fixed, y in zip(v, z, held, labels, strict=True):
        weight = 1 - math.exp(-label_loss(fixed, y) / (label_loss(a, y) + 1e-7))
        rows.append(weight * kd(a, b, t, t, t * t))
    return mean(rows)


def annealing(v, z, held, labels, progress, largest=10, share=2 / 3):
    """‖z − Φ(T)v‖², Φ(T) = 1 − (T − 1)/T_max, T from T_max to 1; averaged over classes as in its code."""
    t = largest - min(int(progress / share * largest), largest - 1)
    phi = 1 - (t - 1) / largest
    return mean([mean([(y - phi * x) ** 2 for x, y in zip(a, b, strict=True)]) for a, b in zip(v, z, strict=True)])


def continuation(v, z, held, labels, progress):
    """1 − ψ times this, with T_max = 20 and ψ = 1 after 150 of 200 epochs."""
    return annealing(v, z, held, labels, progress, largest=20, share=0.75)


# ----------------------------------------------------------------------------------------- methods with a memory


def dts_step(current, teacher_loss, student_loss, progress, initial=4.0, lowest=2.0, highest=4.0):
    gap = teacher_loss - student_loss
    a = gap / (gap + 1)
    factor = a if 1 < a <= 2 else 1.35 if a > 2 else 1.0
    wanted = initial * 0.5 * (1 + math.cos(math.pi * progress)) * factor
    return 0.9 * current + 0.1 * min(max(wanted, lowest), highest)


def ctkd_strength(epoch, epochs=10, largest=0.0, least=-1.0):
    """The factor on θ's gradient."""
    return least + 0.5 * (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) * (largest - least)


def taid_targets(v, held, t):
    return [[(1 - t) * y + t * x for x, y in zip(a, b, strict=True)] for a, b in zip(v, held, strict=True)]


def taid(v, z, held, t):
    rows = zip(taid_targets(v, held, t), z, strict=True)
    return mean([cross_entropy(softmax(a), softmax(b)) for a, b in rows])


def taid_step(t, momentum, before, loss, even, alpha=5e-4, beta=0.99):
    momentum = beta * momentum + (1 - beta) * (before - loss) / (before + 1e-15)
    return min(1.0, max(even, t + alpha / (1 + math.exp(-momentum)) * (1 - t))), momentum


def hellinger(p, q):
    return math.sqrt(math.fsum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True)) / 2)


def adakd_rows(v, held, share, base=1.0, strength=0.5):
    """The temperature of each of the hardest rows, and None for the others; the median is the lower of two."""
    s = [hellinger(softmax(a), softmax(b)) for a, b in zip(v, held, strict=True)]
    kept = sorted(range(len(s)), key=lambda n: -s[n])[: max(1, int(share * len(s)))]
    middle = sorted(s[n] for n in kept)[(len(kept) - 1) // 2]
    return [
        base * math.exp(-strength * math.tanh(math.log(x / middle))) if n in kept else None for n, x in enumerate(s)
    ]


def adakd(v, z, rows):
    """Mean over the rows kept of τ²·KL(q‖p)."""
    terms = [t * t * kl(softmax(b, t), softmax(a, t)) for a, b, t in zip(v, z, rows, strict=True) if t is not None]
    return mean(terms)


def adakd_share(share, average, reference, tolerance=0.05):
    if average < reference * (1 - tolerance):
        return max(0.1, share * (1 - tolerance)), average
    if average > reference * (1 + tolerance):
        return min(1.0, share * (1 + tolerance)), average
    return share, reference


def softness_temperature(row, classes):
    """Exp(H(p_T)) = classes, by halving log T: the entropy never falls as T rises."""
    low, high = math.log(1e-3), math.log(1e4)
    for _ in range(80):
        middle = 0.5 * (low + high)
        if entropy(softmax(row, math.exp(middle))) < math.log(classes):
            low = middle
        else:
            high = middle
    return math.exp(low)
