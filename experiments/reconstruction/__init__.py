"""What `reconstruct` is made of: pictures and depths of splats, their fusion into a textured mesh, the report."""
