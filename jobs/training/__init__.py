"""The parts of a training job: model, data, schedule, process group, checkpoint, step."""
