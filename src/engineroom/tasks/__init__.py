"""The classic Task interface: tasks as objects that carry code, data in and out, and their own fault policy.

>>> from engineroom.tasks import Task, TaskClient
>>> tc = TaskClient(rc)                                               # doctest: +SKIP
>>> id = tc.run(Task("b = 2 * a", push={"a": 21}, pull="b"))          # doctest: +SKIP
>>> tc.get_task_result(id, block=True)                                # doctest: +SKIP
TaskResult[ID:0]:{'b': 42}

They run on the same engines as the tasks of views, by the same scheduler, and have the same records.
"""

from .client import TaskClient
from .result import TaskResult
from .task import BaseTask, MapTask, Task

#: as later versions of IPython.kernel call it
StringTask = Task

__all__ = ["BaseTask", "MapTask", "StringTask", "Task", "TaskClient", "TaskResult"]
