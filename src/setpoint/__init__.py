"""Knowledge distillation with the temperature under control."""
