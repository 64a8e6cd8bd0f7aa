"""A program of its own that trains exit policies with TF-Agents.

TF-Agents needs Keras 2 (`tf_keras`), so it runs in a process apart, started by
`keras_efficient.policies.agents_process` as the top-level package `agents_worker`: nothing in here imports the rest of
keras_efficient, and nothing else imports this. Arrays come and go in `.npz` files, progress as lines of JSON on the
standard output.
"""
