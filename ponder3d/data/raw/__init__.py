"""Datasets in the layout that their publishers ship, read once by ``ponder3d prepare`` and looked over by the doctor.

One module per dataset; its name is what ``ponder3d prepare NAME`` takes. ``dataset.py`` is the contract.
"""
