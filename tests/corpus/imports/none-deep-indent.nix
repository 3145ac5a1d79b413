{ ... }:
    {
        networking.hostName = "a";
    }
