"""Print the folder of our tasks: ``lmms-eval --include_path "$(python -m omnisink.evaluation.lmms)" ...``."""

from omnisink.evaluation.lmms import tasks_folder

print(tasks_folder())
