"""Floor 6: recipes. Every public function of these modules that returns an Experiment is one; a variant is a function
that calls another and replaces a few fields. ``ponder3d recipes`` lists them, ``ponder3d train MODULE.FUNCTION`` runs
one.
"""
