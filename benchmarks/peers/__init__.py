"""What people would write without tune_rnn: the scripts that it is measured against."""
