"""The load: personas, scenarios and the gate that turns a run into a verdict."""
