"""The parts of a training job: model, data order, learning rate, gang, checkpoint, step."""
