"""Whole jobs as YAML files: one for each row of the papers' tables, scaled-down variants for a CPU, and our own.

A recipe's name is its path without the suffix, for example "jeddi2020/cifar10-aft". Files and
folders whose name begins with "_" hold parts that others extend, and studies; they are no recipes themselves.
"""
