"""`python -m ornstein …`: the same as `ornstein …`, for launchers that take a module (`accelerate launch -m ornstein train …`)."""

from ornstein.cli import main

if __name__ == "__main__":
    main()
