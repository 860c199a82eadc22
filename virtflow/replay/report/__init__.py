"""The report: one HTML file that shows a recording, for a person who was not there.

``view`` works out what the page shows (``spans``, ``inputs``, ``layout``, ``axis``), ``page`` puts it into the template
with the style and the scripts that lie beside this file. The page itself only draws.
"""
