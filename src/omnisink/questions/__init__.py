"""Questions, their choices and their answers, whoever asks and whatever answers: in files, in prompts, in replies."""
