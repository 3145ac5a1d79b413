{ ... }:
{
	imports =
		[ # tabs
			./a.nix
		];
}
