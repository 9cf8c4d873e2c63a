"""Print the folder of our tasks: ``lmms-eval --include_path "$(python -m omnisink.integrations.lmms)" ...``."""

from omnisink.integrations.lmms import tasks_folder

print(tasks_folder())
