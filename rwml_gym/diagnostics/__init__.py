"""Tests of a reward before training: calibration, audit, attacks."""
