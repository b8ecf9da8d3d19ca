module tenure/clients/example

go 1.23

require tenure/clients/go v0.0.0

replace tenure/clients/go => ../../go
