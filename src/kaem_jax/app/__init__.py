"""What a run needs around the library: data, devices, folders of runs, evaluation, commands."""
