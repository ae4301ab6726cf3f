"""The certificate of a file: its runtime against eager autograd through the injected form."""
