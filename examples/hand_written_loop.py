"""Distil in your own PyTorch loop: a 64-200-10 network into a 64-8-10 one, on scikit-learn's digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from setpoint import DistillationObjective


def train(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, teacher: nn.Module | None) -> None:
    objective = DistillationObjective(temperature=4.0, alpha=0.0 if teacher is None else 0.9)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        for rows in torch.randperm(len(pixels)).split(64):
            with torch.no_grad():
                teacher_logits = None if teacher is None else teacher(pixels[rows])
            loss = objective(student_logits=model(pixels[rows]), teacher_logits=teacher_logits, labels=labels[rows])
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def main() -> float:
    torch.manual_seed(0)
    pixels, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    pixels = pixels.float() / 16
    teacher, student = network(200), network(8)
    train(teacher, pixels[:1300], labels[:1300], None)
    train(student, pixels[:1300], labels[:1300], teacher.eval())
    accuracy = float((student(pixels[1300:]).argmax(-1) == labels[1300:]).float().mean())
    print(f"student accuracy on unseen digits: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
