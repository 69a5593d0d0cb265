"""`python -m msm` and `torchrun … -m msm`: the command `msm`."""

from .cli import main

main()
