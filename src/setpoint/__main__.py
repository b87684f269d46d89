"""``python -m setpoint``, which is how torchrun and accelerate start it."""

from setpoint.cli import main

main()
