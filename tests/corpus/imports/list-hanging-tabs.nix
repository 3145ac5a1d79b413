{ ... }:
{
	imports = [	./hardware-configuration.nix
	];
}
