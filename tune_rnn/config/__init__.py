"""What `tune_rnn.space` and `tune_rnn.experiment` are made of.

distributions   what a searched value may be              parsing      distributions as they are written
fields          types of keys with a check of their own    validation   pydantic's findings in our words
settings        keys as written, overrides, branches       resolution   everything checked, defaults filled in
"""
