"""Facts of a scene: from its record, its zip, the vendor's small members, and its rasters.

Everything here decides and never waits. STAC items, mosaics, the gallery and selections are all
made of `scene.SceneFacts`. A fact that is not known is None or empty, and never guessed.

`record.facts_of_record` needs the API's record alone. `delivery.DeliveryParser` names the members
of a zip and the parts of them that are to be read, takes their bytes, and returns what they state;
`delivery.combine` puts both together.
"""
