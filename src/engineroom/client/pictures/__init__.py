"""Pictures of tasks as SVG, made without any library: timelines, the history of records, graphs of tasks.

Pure: what is drawn is given; nothing is asked of the controller here.
"""
