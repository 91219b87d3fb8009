// A path that nobody has to serve: use it by a replace directive or a workspace (see README.md).
module immuta/readers/go

go 1.23
