"""Plan and wrap: where tables lie, and the model that trains over them."""
