"""The procedural world of coloured solids: descriptions, objects, signed distances, pictures, exact geometry."""
