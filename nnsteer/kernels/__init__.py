"""What travels to the model: functions of torch alone."""
