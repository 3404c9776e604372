"""The processes of one host: the nanny watches, the zygote forks engines. Nothing here runs tasks."""
