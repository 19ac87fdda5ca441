"""Drafters trained apart from their trunk (`drafter=`), one file for each kind."""
