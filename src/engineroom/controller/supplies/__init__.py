"""What tasks need on their engines, but for the tasks themselves: functions, results of others, large buffers."""
