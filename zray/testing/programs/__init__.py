"""What simulated users do: functions, actors, and the programs of drivers."""
