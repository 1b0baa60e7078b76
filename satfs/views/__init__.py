"""Views of the account and of a task: links by name and date, a map, mosaics, a QGIS project.

The renderers (`gallery`, `mosaic`, `qgis`) make bytes of `scene_view.SceneView` and never wait.
Paths in what they make are relative to `views/task/<task>/`, whose link `captures` leads to the
task's directory, so that a copy of the view with its links followed works by itself.
"""
