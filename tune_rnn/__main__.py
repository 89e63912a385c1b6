"""`python -m tune_rnn` is `tune-rnn`."""

import sys

from tune_rnn.cli import main

sys.exit(main())
