{ ... }:
{
	networking.hostName = "a";
}
