"""What every stage stands on: errors, files, seeding, devices and progress."""
