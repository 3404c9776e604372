"""What ipyparallel has in `serialize.codeutil`, which is imported for its effect: code objects can then be pickled.

Here they always can: functions travel by cloudpickle. So there is nothing in this module.
"""
