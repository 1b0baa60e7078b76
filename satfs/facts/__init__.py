"""What is known of a scene: from its record, its zip, the vendor's small members, its rasters.

Everything here decides and never waits. `scene.SceneFacts` is what others build on: the STAC items,
the mosaics, the gallery and the selections are renderings of it. What is not known is None or
empty, and never guessed.

`record.facts_of_record` needs the API's record alone. `delivery.DeliveryParser` names the members
of a zip and the parts of them that are to be read, takes their bytes, and returns what they state;
`delivery.combine` puts both together.
"""
