"""What can be measured: each module is a program that anyone can run."""
