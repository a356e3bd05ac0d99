"""Hints for error responses, by their message: one module for each subject.

`order` joins them. Sources: LM Studio docs `2_rest`, reports in lmstudio-bug-tracker as numbered in the modules, and the error
messages of llama.cpp.
"""
