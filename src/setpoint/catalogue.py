"""Every published method there is here, as a table: what it is, where it is from, what it needs, when to use it."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, get_args

from pydantic import BaseModel

from setpoint.errors import RecipeError
from setpoint.recipe_objective import DivergenceRecipe, HardRecipe
from setpoint.recipe_temperature import TemperatureRecipe


@dataclass(frozen=True)
class Method:
    """One way to set a temperature, to measure a distance, or to make hard targets.

    Attributes:
        name: what it is called in a recipe.
        kind: ``temperature`` (``temperature: {policy: NAME}``), ``divergence`` (``objective.divergence: NAME``) or
            ``hard`` (``objective.hard: {kind: NAME}``).
        reference: where it was published.
        needs: what it needs beside the two models' logits.
        when: when to use it.
    """

    name: str
    kind: str
    reference: str
    needs: str
    when: str


_HINTON = "Hinton et al. 2015, arXiv:1503.02531"

# fmt: off
METHODS = (
    Method("constant", "temperature", _HINTON, "", "first: the reference that every other method has to beat"),
    Method("linear", "temperature", "an ablation of annealing and DTS", "", "to try a direction: falling, or rising"),
    Method("cosine", "temperature", "an ablation of annealing and DTS", "", "as linear, but slow at both ends"),
    Method("exponential", "temperature", "an ablation of annealing and DTS", "", "as linear, over a wide range of T"),
    Method("step", "temperature", "an ablation of annealing and DTS", "", "for phases of a training"),
    Method("progressive", "temperature", "Liu et al. 2025 (POCL), arXiv:2506.05695", "",
           "for language models whose students start far from the teacher"),
    Method("multi", "temperature", "Jin et al. 2023 (CVPR), Multi-Level Logit Distillation", "",
           "where no single T is known to be good; N times the loss"),
    Method("softness", "temperature", "Setpoint", "", "to say how soft the targets shall be, for whatever teacher"),
    Method("lskd", "temperature", "Sun et al. 2024 (CVPR), arXiv:2403.01427", "",
           "for students much smaller than the teacher, with a high alpha; not for language models"),
    Method("normkd", "temperature", "Chi et al. 2023, arXiv:2308.00520", "",
           "as lskd, where rows on which the teacher is sure should count more"),
    Method("spherical", "temperature", "Guo et al. 2020, arXiv:2010.07485", "",
           "where teacher and student differ in the size of their logits"),
    Method("dtkd", "temperature", "Wei and Bai 2024, arXiv:2404.12711", "",
           "where the student is far less sure than the teacher"),
    Method("ttm", "temperature", "Zheng and Yang 2024 (ICLR), arXiv:2402.11148", "",
           "where the student is overconfident: it penalises that"),
    Method("wttm", "temperature", "Zheng and Yang 2024 (ICLR), arXiv:2402.11148", "",
           "as ttm, where few rows have something to say beside the label"),
    Method("ats", "temperature", "Li et al. 2022 (NeurIPS), arXiv:2210.04427", "labels",
           "for large, overconfident teachers whose other classes look alike"),
    Method("flsw", "temperature", "Wen et al. 2019, arXiv:1911.07471", "",
           "where some rows are much harder than others"),
    Method("cwsm", "temperature", "Wen et al. 2019, arXiv:1911.07471", "", "as flsw, by the student's confidence"),
    Method("wsld", "temperature", "Zhou et al. 2021 (ICLR), arXiv:2102.00650", "labels",
           "where the soft loss holds back rows that the student knows"),
    Method("annealing", "temperature", "Jafari et al. 2021 (EACL), arXiv:2104.07163", "labels",
           "for a teacher far larger than the student; alpha is not used"),
    Method("continuation", "temperature", "Jafari et al. 2022 (EMNLP), arXiv:2212.05998", "labels",
           "as annealing, without a break between two phases"),
    Method("dts", "temperature", "arXiv:2511.13767, by its author's earlier code", "labels",
           "as cosine; differs where the student's loss is far above the teacher's"),
    Method("ctkd", "temperature", "Li et al. 2023 (AAAI), arXiv:2211.16231", "",
           "where nothing is known of T and there is no time to search"),
    Method("ctkd_instance", "temperature", "Li et al. 2023 (AAAI), arXiv:2211.16231; its network is ours", "",
           "as ctkd, where rows differ much in difficulty"),
    Method("itkd", "temperature", "Zhang et al. 2024, arXiv:2407.00115", "labels",
           "for long trainings: an agent learns each row's T from the student's accuracy, slowly"),
    Method("meta", "temperature", "Luketina et al. 2016 (ICML), arXiv:1511.06727, as in Meta KD (Liu et al. 2022)",
           "held-out labels", "where a search is too dear: T follows the labels of 5 % of the training examples"),
    Method("adakd", "temperature", "Xie et al. 2025 (AAAI 2026), arXiv:2510.11615", "",
           "for language models: the loss goes to the hardest tokens"),
    Method("taid", "temperature", "Shing et al. 2025 (ICLR), arXiv:2501.16937", "",
           "where teacher and student are so far apart that the student collapses"),
    Method("forward_kl", "divergence", _HINTON, "", "first: covers all that the teacher holds possible"),
    Method("reverse_kl", "divergence", "Gu et al. 2024 (MiniLLM), arXiv:2306.08543", "",
           "for generation: seeks a mode"),
    Method("jensen_shannon", "divergence", "Lin 1991, IEEE Trans. Inf. Theory 37(1)", "",
           "bounded, for noisy teachers"),
    Method("soft_cross_entropy", "divergence", _HINTON, "", "to compare with papers: the gradient of forward_kl"),
    Method("logit_mse", "divergence", "Kim et al. 2021 (IJCAI), arXiv:2105.08919", "", "the limit of a very high T"),
    Method("squared_error", "divergence", "Jafari et al. 2021 (EACL), arXiv:2104.07163", "",
           "with annealing and continuation"),
    Method("skew_forward_kl", "divergence", "Ko et al. 2024 (DistiLLM), arXiv:2402.03898", "",
           "forward_kl without its spikes where the student rules a class out"),
    Method("skew_reverse_kl", "divergence", "Ko et al. 2024 (DistiLLM), arXiv:2402.03898", "",
           "for generation, steadier than reverse_kl"),
    Method("total_variation", "divergence", "Wen et al. 2023 (f-DISTILL), arXiv:2307.15190", "",
           "bounded by 1, robust"),
    Method("alpha_beta", "divergence", "Wang et al. 2025 (ABKD), arXiv:2505.04560", "",
           "to go between forward and reverse KL by two numbers"),
    Method("dkd", "divergence", "Zhao et al. 2022 (CVPR), arXiv:2203.08679", "labels",
           "for images: frees the other classes from the teacher's confidence"),
    Method("nkd", "divergence", "Yang et al. 2023 (ICCV), arXiv:2303.13005", "labels",
           "as dkd, the target staying at T = 1"),
    Method("dist", "divergence", "Huang et al. 2022 (NeurIPS), arXiv:2205.10536", "batches of many rows",
           "for teachers far stronger than the student: relations, not values"),
    Method("adaptive_kl", "divergence", "Wu et al. 2024 (AKL), arXiv:2404.02657", "",
           "for language models trained for few epochs"),
    Method("todi", "divergence", "Jung et al. 2025 (EMNLP), arXiv:2505.16297", "", "as adaptive_kl, class by class"),
    Method("labels", "hard", "the data", "labels", "wherever there are labels"),
    Method("teacher_argmax", "hard", "Kim and Rush 2016, arXiv:1606.07947", "",
           "for unlabelled data; as a mixture, for labels that are often wrong"),
    Method("teacher_sample", "hard", "Kim and Rush 2016, arXiv:1606.07947", "",
           "for unlabelled data, with the teacher's doubts"),
)
# fmt: on


def defaults(method: Method) -> dict[str, Any]:
    """The fields of a method in a recipe with their defaults; those that have none are None.

    Examples:
        >>> defaults(next(method for method in METHODS if method.name == "ats"))
        {'target': 4.0, 'other': 2.0}
    """
    fields = _section(method).model_fields.items()
    return {name: _plain(field.default) for name, field in fields if name not in ("policy", "kind")}


def table() -> list[dict[str, Any]]:
    """Every method as plain data: name, kind, reference, defaults, needs, when."""
    return [asdict(method) | {"defaults": defaults(method)} for method in METHODS]


def find(name: str) -> dict[str, Any]:
    """The row of one method.

    Raises:
        RecipeError: there is none of that name.

    Examples:
        >>> find("ctkd")["reference"]
        'Li et al. 2023 (AAAI), arXiv:2211.16231'
    """
    rows = {row["name"]: row for row in table()}
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=1)
        mend = f"did you mean '{near[0]}'?" if near else "`setpoint methods` lists all"
        raise RecipeError(f"method '{name}' is unknown", mend)
    return rows[name]


def names(kind: str) -> list[str]:
    """What a recipe may call a temperature policy, a divergence or hard targets, by the schema."""
    return [name for section in _sections(kind) for name in _tags(section)]


def _section(method: Method) -> type[BaseModel]:
    return next(section for section in _sections(method.kind) if method.name in _tags(section))


def _sections(kind: str) -> tuple[type[BaseModel], ...]:
    if kind == "hard":
        return (HardRecipe,)
    union = TemperatureRecipe if kind == "temperature" else DivergenceRecipe
    return get_args(get_args(union)[0])


def _tags(section: type[BaseModel]) -> tuple[str, ...]:
    switch = "policy" if "policy" in section.model_fields else "kind"
    return get_args(section.model_fields[switch].annotation)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return round(value, 4) if isinstance(value, float) else value
